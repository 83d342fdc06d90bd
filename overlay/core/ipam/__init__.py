"""Address ownership: grants, allocation, reclaim."""
