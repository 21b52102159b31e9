"""Images and labels: where they come from, how they are decoded and which split they go into."""
