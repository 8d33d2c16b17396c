"""What the commands do, each in one call: an options object that is checked when it is made, and a report.

    edgemoe.convert_model("OLMoE-1B-7B", "olmoe.store", edgemoe.ConvertOptions(bits=3))

The public names are those of the package ``edgemoe``. A call that was interrupted goes on when it is made
again. Errors name an option as the command line spells it: --bits is ``bits``.
"""
