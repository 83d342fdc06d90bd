"""Who owns which address: grants, allocation, reclaim."""
