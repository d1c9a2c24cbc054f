//! Cluster metadata: the image and the records that change it.
