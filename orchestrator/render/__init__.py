"""From a plan to the text of files that other programs take: Ray's cluster launcher, KubeRay."""
