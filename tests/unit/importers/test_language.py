"""The language of changed files."""

from memory_core.importers.language import language_of, patched_files


def test_the_language_is_that_of_most_files_whatever_the_case_of_their_suffixes():
    assert language_of(["MAIN.PY", "util.Py", "index.ts"]) == "python"
    assert language_of(["src\\Main.JAVA"]) == "java"
    assert language_of(["README"]) is None


def test_the_files_of_a_diff():
    diff = "--- a/x.py\n+++ b/x.py\n@@\n--- a/y.py\n+++ /dev/null\n+++ b/z.go\t2025\n"
    assert patched_files(diff) == ("x.py", "z.go")
