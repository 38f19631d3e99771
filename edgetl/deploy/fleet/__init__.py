"""Many devices over OpenSSH: put a bundle there, prove it there, measure it there, and bring home what they kept.

The only program that is started here is `ssh`, with the user's own settings, keys and jump hosts. A device needs `sh`,
Python, and what `edgetl fleet init` installed. Everything on a device stands in one folder:

    env -> envs/KEY                          the environment that runs
    bundles/NAME-SHA256.edgetl               whole bundles, by the first 16 hex digits of their hash
    incoming/                                what is on its way; an upload goes on where it stopped
    current.edgetl -> bundles/...            the bundle that runs
    previous.edgetl -> bundles/...           the one before, for `edgetl fleet rollback`
    captured/                                images that the device kept

A link is replaced by renaming another over it, which is one step of the file system: at every moment it leads to the
old bundle or the new one, and both are whole.
"""
