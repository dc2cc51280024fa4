"""Moving records between stores and files: export, load, copy, verify.

All of it streams in pages and keeps memory bounded, takes every kind a registry knows, and reads a
store that is in use: what changes meanwhile is followed by the change feed until nothing is new.
"""

from memory_core.transfer.copying import CopyReport, copy_records
from memory_core.transfer.exporting import ExportReport, export_records
from memory_core.transfer.loading import (
    Export,
    LoadReport,
    load_export,
    load_records,
    open_export,
)
from memory_core.transfer.progress import OnProgress, Progress
from memory_core.transfer.scan import count_records, list_namespaces
from memory_core.transfer.sink import Refusal
from memory_core.transfer.verifying import Difference, DifferenceKind, VerifyReport, verify_records

__all__ = [
    "CopyReport",
    "Difference",
    "DifferenceKind",
    "Export",
    "ExportReport",
    "LoadReport",
    "OnProgress",
    "Progress",
    "Refusal",
    "VerifyReport",
    "copy_records",
    "count_records",
    "export_records",
    "list_namespaces",
    "load_export",
    "load_records",
    "open_export",
    "verify_records",
]
