"""Who a request comes from, and which channels that opens."""
