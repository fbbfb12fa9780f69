"""PROVISIONAL."""
import sys
sys.path.insert(0,"/tmp/research")
from types import SimpleNamespace as NS
import torch
from .encoder import Encoder
from .types import Frames
import lm
D=dict(n_mels=64,win=0.032,hop=0.016,trim=40.,norm="mean+lvl",stem=[2,2],widths=[16,32,64],blocks=[1,1],tst=[2,1],fpool="flat",dim=128,gru=0,tcn=0,drop2d=0.1,stretch=0.2,shift=3.,tilt=0.,gain=0.,rng=0.,tmask=2,tfrac=0.2,tmax=20,fmask=2,fwid=8,bf16=True,common=1)
class LogMelEncoder(Encoder):
    def __init__(self, *, dim: int = 128) -> None:
        super().__init__(); self.dim=dim; self.fe=lm.LogMel(64,.032,.016,1024); self.net=lm.Enc(NS(**D))
    def extract(self,audio,lengths): return self.fe(audio,lengths)
    def forward(self,h,m):
        x,m=self.net(h,m); return Frames(x,m)
