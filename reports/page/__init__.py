"""One self-contained HTML file of an experiment: leaderboard, plots, tables, every record."""

from reports.page.write import PAGE_NAME, page_text

__all__ = ["PAGE_NAME", "page_text"]
