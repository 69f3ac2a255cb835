"""Quality checks of explanations."""
