"""Where diffusers calls us: its ``quantizer``, the ``registration`` of it, and ``methods`` of its models taken over.

``late_import`` waits for diffusers to be imported; ``copying`` is what ``copy.deepcopy`` does to a quantized model.
"""
