"""From utterances and a recipe to trained networks."""
