"""Any source → `Pairs`, their splits, and the cache of decoded images. It knows no model but what preprocesses a
picture.
"""
