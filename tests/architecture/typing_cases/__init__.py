"""What ``test_typing`` gives to pyright and mypy: a user's program, inferred types, and mistakes."""
