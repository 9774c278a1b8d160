"""What operators see: the catalogue of all metrics, who measures them, and how they reach one scrape."""
