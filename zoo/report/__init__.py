"""Results of a comparison, as tables, figures and one page."""
