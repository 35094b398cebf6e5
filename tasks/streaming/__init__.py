"""Send the deltas of streamed answers to Redis; `breakwater.asking.reader` reads them."""
