"""Which stretches of sound are answered: those that are not silent, or those in which somebody speaks.

Speech is told by how far it rises above the noise of the room. What a voice is, nothing here knows.
"""

from __future__ import annotations

import math

import numpy as np

from vervet import audio

GATE_DB = 9.0  # above the noise floor, and a frame is speech

FRAME_S = 0.02  # over which a level is measured
BAND = (200.0, 4000.0)  # Hz; has most of a voice, and little of hum, rumble and hiss
QUIET_SHARE = 10.0  # per cent of the frames of a window that are taken for the pauses in it
RISE_DB_PER_S = 5.0  # how fast the noise floor follows noise that grows; it follows at once where noise ends
FAINT_DBFS = -55.0  # a frame below this is never speech
LOUD_DBFS = -30.0  # a frame above this always is
NAMED = 5  # silent stretches that a problem spells out
LEAST_SPEECH_S = 0.25  # in a window of speech


class Gate:
    """Hears windows in order of time, and says in which of them somebody speaks.

    It keeps track of a noise floor, which falls at once to the level of the quietest tenth of a window and rises
    slowly, so that it stays with the room while somebody speaks, and follows a fan that is switched on.

    Parameters
    ----------
    sampling_rate : int
        Of the windows, in Hz.
    gate_db : float
        How far above the noise floor speech is, in dB. Less lets more through.

    Raises
    ------
    ValueError
        If `gate_db` is negative, infinite or NaN.
    """

    def __init__(self, sampling_rate: int, gate_db: float = GATE_DB) -> None:
        if not 0 <= gate_db < math.inf:
            raise ValueError(f"gate of {gate_db:g} dB: give 0 or more above the noise floor, or None for no gate")
        self.sampling_rate = sampling_rate
        self.gate_db = gate_db
        self.floor_db = math.inf

    def lets_through(self, waveform: np.ndarray, elapsed_s: float) -> bool:
        """Hear a window.

        Parameters
        ----------
        waveform : numpy.ndarray
            (samples,) float32 in [-1, 1].
        elapsed_s : float
            How much later the window ends than the one before it, in seconds.

        Returns
        -------
        bool
            Whether there is speech in it.
        """
        found = levels(waveform, self.sampling_rate)
        # digital silence is a muted microphone or a filled gap, and says nothing about the room
        sounding = found[found > audio.SILENCE_DBFS]
        if len(sounding):
            self.floor_db += RISE_DB_PER_S * min(elapsed_s, FRAME_S * len(sounding))
            self.floor_db = min(self.floor_db, float(np.percentile(sounding, QUIET_SHARE)))
        speech = found > np.clip(self.floor_db + self.gate_db, FAINT_DBFS, LOUD_DBFS)
        return bool(speech.sum() * FRAME_S >= min(LEAST_SPEECH_S, len(found) * FRAME_S / 2))


class Pauses:
    """Hears the windows of one recording in order of time, and says which of them have no answer.

    Parameters
    ----------
    sampling_rate : int
        Of the windows, in Hz.
    speech_only : bool
        Whether all windows without speech are left out, or only digital silence.
    """

    def __init__(self, sampling_rate: int, speech_only: bool = False) -> None:
        self._gate = Gate(sampling_rate) if speech_only else None
        self._silent: list[tuple[float, float]] = []
        self._heard_s: float | None = None  # the end of the last window

    def skip(self, window: audio.Window) -> bool:
        """Hear a window, and tell whether it has no answer."""
        if self._gate:
            elapsed_s = window.end_s - (window.start_s if self._heard_s is None else self._heard_s)
            self._heard_s = window.end_s
            return not self._gate.lets_through(window.waveform, elapsed_s)
        silent = audio.is_silent(window.waveform)
        if silent:
            self._silent.append((window.start_s, window.end_s))
        return silent

    def problem(self, name: str, answered: bool) -> str:
        """Say what the user should know of what was left out.

        Parameters
        ----------
        name : str
            Of the recording.
        answered : bool
            Whether any window of it was.

        Returns
        -------
        str
            Names silent stretches, neighbours joined; or that nobody speaks at all. Pauses between speech are no
            problem: empty.
        """
        if self._gate:
            what = f"nobody speaks in it (nothing rises {self._gate.gate_db:g} dB above the noise); no answer"
            return "" if answered else f"{name}: {what}"
        spans: list[tuple[float, float]] = []
        for start_s, end_s in self._silent:
            if spans and start_s <= spans[-1][1] + 1e-6:
                start_s = spans.pop()[0]
            spans.append((start_s, end_s))
        if not spans:
            return ""
        where = ", ".join(f"{start_s:.2f} to {end_s:.2f} s" for start_s, end_s in spans[:NAMED])
        if others := spans[NAMED:]:
            where += f" and {len(others)} more, {sum(end_s - start_s for start_s, end_s in spans):.0f} s in all"
        return f"{name}: silent (below {audio.SILENCE_DBFS:g} dBFS) in {where}; no answer there, check the recording"


def levels(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Level of every 20 ms of a waveform between 200 and 4000 Hz.

    Parameters
    ----------
    waveform : numpy.ndarray
        (samples,) float32 in [-1, 1]; what is left beyond the last whole frame is not measured.
    sampling_rate : int
        In Hz.

    Returns
    -------
    numpy.ndarray
        (frames,) in dB of a mean square of 1, from -120; a sine of full scale has -3.
    """
    frame = round(FRAME_S * sampling_rate)
    taper = np.hanning(frame).astype(np.float32)
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    power = np.abs(np.fft.rfft(frames * taper)) ** 2  # (frames, frequencies)
    frequencies = np.fft.rfftfreq(frame, 1 / sampling_rate)
    inside = (frequencies >= BAND[0]) & (frequencies <= BAND[1])
    mean_square = 2 * power[:, inside].sum(axis=1) / (frame * np.square(taper).sum())
    return 10 * np.log10(mean_square + 1e-12)
