"""``engine quantize``: a checkpoint's matrices rounded one by one and written as a smaller checkpoint, and what that costs."""
