"""The store's videos as files that VBench reads: mp4, at a frame rate that is asked for, and still lossless.

VBench reads frames with decord and with OpenCV, both of which know FFV1 in mp4 and give back the very bytes. So the
stored stream is put into another container as it is: a judge sees what the model made and no codec's errors, and no
time goes into encoding. H.264 would add the same blur to every method, of the size of what is to be told apart.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

CODEC = "ffv1"


def stage(video: Path, staged: Path, fps: float) -> None:
    """Copy the FFV1 stream of ``video`` into the mp4 ``staged``, ``fps`` frames a second."""
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(video)) as source, av.open(str(staged), "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        copy.time_base = 1 / rate
        packets = (packet for packet in source.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            packet.stream = copy
            packet.time_base = 1 / rate
            packet.pts = packet.dts = number
            packet.duration = 1
            target.mux(packet)


def smaller_side(video: Path) -> int:
    """Of its frames, in pixels."""
    with av.open(str(video)) as source:
        context = source.streams.video[0].codec_context
        return min(context.width, context.height)
