"""The bugs that the sample agents repair. The projects are made up."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BUGS", "Bug"]


class Bug(NamedTuple):
    """A bug, where it is, and what shows it.

    Attributes:
        repo: the project.
        issue: number of the report.
        report: its text.
        search: the word that leads to the place.
        path: the file to change.
        line: the line's number in it.
        before: the wrong line.
        after: the right one.
        test: the command that shows the bug.
        failure: what that prints before the repair.
    """

    repo: str
    issue: int
    report: str
    search: str
    path: str
    line: int
    before: str
    after: str
    test: str
    failure: str


BUGS = (
    Bug(
        "parcel-api", 112,
        "Quotes for parcels under a kilogram are free\n\nA parcel of 400 g is quoted at 0.00. The carrier "
        "charges every started kilogram, so it should be the price of one.",
        "per_kilo", "src/parcel/quote.py", 41,
        "    return (grams // 1000) * per_kilo",
        "    return -(-grams // 1000) * per_kilo",
        "python -m pytest tests/test_quote.py",
        "E       assert Decimal('0.00') == Decimal('4.20')\n\ntests/test_quote.py:18: AssertionError",
    ),
    Bug(
        "tidewatch", 27,
        "Tides are an hour off after the clocks change\n\nSince Sunday every high tide is an hour early. "
        "The gauge reports UTC; we seem to read it as local time.",
        "strptime", "tidewatch/parse.py", 63,
        "    return datetime.strptime(text, FORMAT)",
        "    return datetime.strptime(text, FORMAT).replace(tzinfo=UTC)",
        "python -m pytest tests/test_parse.py -k summer",
        'Traceback (most recent call last):\n  File "tests/test_parse.py", line 22, in test_summer\n'
        "TypeError: can't subtract offset-naive and offset-aware datetimes",
    ),
    Bug(
        "ledgerd", 340,
        "Balance of a large account turns negative\n\nAn account with more than 21 million shows a negative "
        "balance. Amounts are in cents, so 2^31 is not that far away.",
        "func Sum", "internal/post/sum.go", 12,
        "func Sum(amounts []int64) int32 {",
        "func Sum(amounts []int64) int64 {",
        "go test ./internal/post/...",
        "--- FAIL: TestSumOfLargeAmounts (0.00s)\n    sum_test.go:31: got -2094967296, want 2200000000\nFAIL",
    ),
    Bug(
        "kiosk-web", 58,
        "Total shows 30.299999999999997\n\nThree items of 10.10 add up to this in the cart. Please calculate "
        "in cents and divide once, at the end.",
        "reduce", "src/cart/total.ts", 9,
        "  return items.reduce((sum, item) => sum + item.price, 0);",
        "  return items.reduce((sum, item) => sum + Math.round(item.price * 100), 0) / 100;",
        "npx vitest run src/cart",
        "AssertionError: expected 30.299999999999997 to be 30.3",
    ),
    Bug(
        "fernpool", 19,
        "The pool hands out more connections than its limit\n\nWith a limit of 4 we saw 9 sessions on the "
        "server. The permit seems to be dropped as soon as the guard is made.",
        "acquire", "src/pool.rs", 88,
        "        let _ = self.permits.acquire().await?;",
        "        let permit = self.permits.acquire().await?;",
        "cargo test --test limit",
        "thread 'never_over_the_limit' panicked at tests/limit.rs:24:\nassertion failed: open <= 4",
    ),
    Bug(
        "marginalia", 77,
        "Searching for 100% finds everything\n\nA percent sign in the search box matches any text. It has to "
        "be escaped before it gets into the pattern.",
        "LIKE", "marginalia/search.py", 30,
        '    pattern = f"%{words}%"',
        '    pattern = f"%{escaped(words)}%"',
        "python -m pytest tests/test_search.py",
        "E       AssertionError: assert 3 == 1\nE        +  where 3 = len([<Note 1>, <Note 2>, <Note 3>])",
    ),
    Bug(
        "rosterly", 204,
        "Back-to-back shifts are refused as overlapping\n\nA shift from 8 to 12 and one from 12 to 16 cannot "
        "both be saved. The end of a shift is not part of it.",
        "overlap", "app/models/shift.rb", 17,
        "    starts_at <= other.ends_at && other.starts_at <= ends_at",
        "    starts_at < other.ends_at && other.starts_at < ends_at",
        "bundle exec rspec spec/models/shift_spec.rb",
        "1) Shift allows the next to begin when it ends\n   Failure/Error: expected no overlap, got true",
    ),
    Bug(
        "lighthouse-cli", 8,
        "An empty environment variable hides the configured value\n\nWith LIGHTHOUSE_URL= in the environment "
        "the URL of the file is ignored and the command fails.",
        "environ", "lighthouse/config.py", 52,
        "    if name in os.environ:",
        "    if os.environ.get(name):",
        "python -m pytest tests/test_config.py",
        'Traceback (most recent call last):\n  File "lighthouse/config.py", line 55, in load\n'
        "ConfigError: '' is no URL",
    ),
    Bug(
        "seedbank", 131,
        "The same lot is listed twice\n\nTwo equal lots both stay in the set. Lot overrides equals but not "
        "hashCode.",
        "equals", "src/main/java/org/seedbank/Lot.java", 44,
        "    // equality is by species and year",
        "    @Override public int hashCode() { return Objects.hash(species, year); }",
        "mvn -q test -Dtest=LotTest",
        "LotTest.equalLotsAreOneInASet:29 expected: <1> but was: <2>",
    ),
    Bug(
        "parcel-api", 118,
        "Labels of the same second overwrite each other\n\nTwo labels made within one second get the same "
        "file name, and the second customer gets the first one's address.",
        "strftime", "src/parcel/label.py", 23,
        '    name = now.strftime("label-%Y%m%d-%H%M%S.pdf")',
        '    name = f"label-{shipment.id}.pdf"',
        "python -m pytest tests/test_label.py",
        "E       AssertionError: assert 1 == 2\nE        +  where 1 = len(list(folder.iterdir()))",
    ),
)  # fmt: skip
