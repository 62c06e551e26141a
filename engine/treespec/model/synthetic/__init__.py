"""Models of any published shape with seeded noise for weights and a draft that agrees as often as asked."""
