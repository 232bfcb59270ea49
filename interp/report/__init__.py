"""The report of a run, or a page that compares several: one HTML file, opens with the network off."""

from interp.report.comparison import write_comparison
from interp.report.elements import Embed, Finding, Listing, Section, SectionBuilder, Table
from interp.report.html import render, write_report
from interp.report.sections import SECTIONS

__all__ = [
    "SECTIONS",
    "Embed",
    "Finding",
    "Listing",
    "Section",
    "SectionBuilder",
    "Table",
    "render",
    "write_comparison",
    "write_report",
]
