"""Programs at the hooks of interfaces, by tcx or by tc's filters, and whose they are."""
