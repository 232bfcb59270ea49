"""What a reader should see first."""

from collections.abc import Sequence

from interp.report.elements import Section
from interp.report.summary import key_results
from interp.run import Run


def overview(run: Run, sections: Sequence[Section]) -> Section:
    """What came out, in brief."""
    return Section("Overview", "overview", results=key_results(run))
