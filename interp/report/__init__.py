"""The report of a run: one HTML file that opens with the network off."""

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
    "write_report",
]
