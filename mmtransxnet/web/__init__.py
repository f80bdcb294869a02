"""A page that shows what models predict."""
