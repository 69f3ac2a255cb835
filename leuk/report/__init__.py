"""Tables, figures and pages from the records of a sweep."""
