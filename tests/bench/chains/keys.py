"""Certificates for those who are not ours: P-256, of one CA, with SPIFFE URIs."""

import os
import subprocess

TRUST_DOMAIN = "spiffe://bench/"


def _openssl(*args):
    done = subprocess.run(["openssl", *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(args)}: {done.stderr}")


class Keys:
    """A folder of them."""

    def __init__(self, folder):
        os.makedirs(folder)
        self.folder = folder
        self.authority, self.key = self._file("ca.crt"), self._file("ca.key")
        self._make_key(self.key)
        _openssl("req", "-x509", "-new", "-key", self.key, "-days", "2", "-subj", "/CN=bench CA", "-out", self.authority,
                 "-addext", "keyUsage=critical,keyCertSign")

    def leaf(self, name, alternative=None):
        """A certificate of this identity (or these alternative names), and its key."""
        certificate, key, request, more = (self._file(f"{name}.{kind}") for kind in ("crt", "key", "csr", "ext"))
        self._make_key(key)
        _openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        with open(more, "w") as file:
            file.write(f"subjectAltName={alternative or f'URI:{TRUST_DOMAIN}{name}'}\nkeyUsage=critical,digitalSignature\n"
                       "extendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", self.key, "-CAcreateserial", "-days", "2",
                 "-extfile", more, "-out", certificate)
        return certificate, key

    @staticmethod
    def _make_key(path):
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)

    def _file(self, name):
        return os.path.join(self.folder, name)
