"""Short benchmarks of a store on the user's own disk, and comparing two of their results."""

from memory_core.benchmarking.comparing import CaseChange, compare, read_report
from memory_core.benchmarking.reports import BenchCase, BenchReport
from memory_core.benchmarking.running import run_benchmark

__all__ = [
    "BenchCase",
    "BenchReport",
    "CaseChange",
    "compare",
    "read_report",
    "run_benchmark",
]
