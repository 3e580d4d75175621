# cffi_module(NAME PACKAGE [LIBRARIES...]): build PACKAGE/NAME from NAME.cdef.h (what
# Python sees) and NAME.csrc.c (what the generated C includes), beside each other.
find_program(CFFI_GEN_SRC cffi-gen-src HINTS ${Python_ROOT_DIR}/bin REQUIRED)

function(cffi_module name package)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${name}.c)
  set(cdef ${CMAKE_CURRENT_SOURCE_DIR}/${name}.cdef.h)
  # By way of an include, so that what gdb and gcov know of it is where it stands.
  set(csrc ${CMAKE_CURRENT_BINARY_DIR}/${name}.csrc.c)
  file(WRITE ${csrc} "#include \"${CMAKE_CURRENT_SOURCE_DIR}/${name}.csrc.c\"\n")
  add_custom_command(
    OUTPUT ${source}
    COMMAND ${CFFI_GEN_SRC} read-sources ${package}.${name} ${cdef} ${csrc} ${source}
    DEPENDS ${cdef}
    VERBATIM)
  python_add_library(${name} MODULE ${source} WITH_SOABI)
  target_link_libraries(${name} PRIVATE ${ARGN})
  install(TARGETS ${name} DESTINATION ${package})
endfunction()
