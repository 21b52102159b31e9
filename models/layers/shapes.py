"""The type of a tensor's shape."""

# `None` is a size that is not known when the network is built, such as the batch size.
Shape = tuple[int | None, ...]
