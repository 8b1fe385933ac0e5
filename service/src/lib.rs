//! What both programs share in being operated: configuration, logging, HTTP, coded errors
