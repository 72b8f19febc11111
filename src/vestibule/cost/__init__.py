"""What a run costs: prices as integers, durable holds, and the books."""
