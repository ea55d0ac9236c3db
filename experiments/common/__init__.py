"""What the studies share: options, variants, results and tables."""
