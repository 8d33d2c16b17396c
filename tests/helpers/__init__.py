"""What several tests need: tiny models and named tolerances."""
