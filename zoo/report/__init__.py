"""What a comparison found, as tables, figures and one page."""
