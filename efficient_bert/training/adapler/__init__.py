"""AdapLeR's stage: saliency, objectives and the training of contribution predictors."""
