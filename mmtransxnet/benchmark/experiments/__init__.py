"""Many short trainings on the embedded digits, and what they show."""
