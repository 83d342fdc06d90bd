"""Services: one virtual address for several backends, derived from records."""
