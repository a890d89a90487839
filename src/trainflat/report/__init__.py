"""Reports: what runs left behind, as one page, figures and tables. Reads records only, and never imports torch."""

from trainflat.report.diagnosis import write_diagnosis
from trainflat.report.reading import Found, find_landscapes, find_records, find_results, read_records
from trainflat.report.sections.scores import caveats, summary_table
from trainflat.report.tables import score_rows
from trainflat.report.write import FORMATS, write_report

__all__ = [
    "FORMATS",
    "Found",
    "caveats",
    "find_landscapes",
    "find_records",
    "find_results",
    "read_records",
    "score_rows",
    "summary_table",
    "write_diagnosis",
    "write_report",
]
