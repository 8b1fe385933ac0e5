//! The embedded state store on disk, a cache of the changelog
