"""The report of a run, or a page that compares several: one HTML file, opens with the network off."""

from interp.report.comparison import write_comparison
from interp.report.elements import Embed, LeftOut, Listing, Section, SectionBuilder, Table, section
from interp.report.html import render, write_report
from interp.report.sections import SECTIONS

__all__ = [
    "SECTIONS",
    "Embed",
    "LeftOut",
    "Listing",
    "Section",
    "SectionBuilder",
    "Table",
    "render",
    "section",
    "write_comparison",
    "write_report",
]
