"""The SavedModel: how it is written, pushed, loaded and asked for scores."""
