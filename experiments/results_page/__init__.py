"""The page of all results, made from their folders."""
