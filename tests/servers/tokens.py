"""A key pair made for these tests, and JWTs signed with it; it opens nothing else."""

PUBLIC_KEY = "CpEMZ4HGs-kvDEI2D0LsBTEt54KSBOzsb-zIfVaHgrg"

_HEADER = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9"

#: {"a": "rw"}
READ_WRITE = (
    f"{_HEADER}.eyJhIjoicncifQ."
    "rnKA3RQa9QTXS6o86o0Ro01FKXZKIHPfZ9RQCzsQCmFfaPKdZrbh_93iPgrB6IrVgcRGX6RiDhzknowymtDVBA"
)
#: {"a": "ro"}
READ_ONLY = (
    f"{_HEADER}.eyJhIjoicm8ifQ."
    "TWJCXRTyBUYv-y-SuP0k5MyKF1PfAmVQxeHpNZ_yjaMRNlYgjUcjlp6UEVZP0mUHFNphjH6Zi5sxSjUXhJZvDw"
)
#: {"a": "rw", "exp": 1000000000}
EXPIRED = (
    f"{_HEADER}.eyJhIjoicnciLCJleHAiOjEwMDAwMDAwMDB9."
    "tmaG1JgqxynKLvsKX4IyInQNWQftK2wVFkhUN-FFBfu4mUQLyHeCgQzI7s8-pGQMSDy__utTf-8_hAj-KYSkCA"
)
