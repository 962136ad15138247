"""Trees whose training needs nothing but sums over clients."""
