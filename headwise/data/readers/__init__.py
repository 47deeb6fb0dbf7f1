"""A file for each kind of source: it yields records or rows and knows neither what they mean nor what becomes of them."""
