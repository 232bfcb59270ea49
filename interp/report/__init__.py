"""The report of a run: one HTML file that opens with the network off."""

from interp.report.html import render, write_report
from interp.report.sections import SECTIONS, Listing, Section, SectionBuilder, Table

__all__ = ["SECTIONS", "Listing", "Section", "SectionBuilder", "Table", "render", "write_report"]
