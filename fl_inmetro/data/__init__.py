"""Sources, cleaning, calendar, windows, features: from a user's file to what a model sees."""
