"""What a trained network is worth: splits, audits, scores, costs, figures and tables."""
